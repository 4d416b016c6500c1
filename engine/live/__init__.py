"""The live side: the same strategy on Alpaca's paper-trading feed, or on the embedded exchange."""
