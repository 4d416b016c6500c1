"""An Alpaca-compatible exchange on this machine: it replays bars, takes orders, and speaks Alpaca's protocol.

One step of the replay is one distinct bar end: what is pending is matched against the new bars, the account hears of
its fills, then everyone is shown the bars. Matching and accounts are ``engine.trading``'s, called as the backtest's
broker calls it, so the same orders give the same fills to the last bit.

Where it differs from Alpaca: opposite orders of one symbol may rest side by side (no wash trade check), because the
backtest allows it; commission is booked, but no field of Alpaca's orders shows it; ``n`` and ``vw`` of a bar are not in
our data, and are sent as 1 and the close.

Asked for by a schedule (``faults``), it fails on purpose, and each failure sits in a module of its own: ``faulty_line``
(messages and connections), ``faulty_requests``, ``faulty_venue`` (orders) and ``flawed_bars``.
"""
