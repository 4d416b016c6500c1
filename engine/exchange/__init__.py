"""An Alpaca-compatible exchange on this machine: it replays bars, takes orders, and speaks Alpaca's protocol."""
