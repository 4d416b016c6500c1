"""What is wrong with bars, what is done about it, and the record of both."""
