"""The only place where bars enter the program: sources, validation, calendars, cuts."""
