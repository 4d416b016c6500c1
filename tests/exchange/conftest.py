"""Warnings are errors, but for alpaca-py's own import of ``websockets.legacy``: once here, then it is loaded."""

import warnings

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    import alpaca.data.historical
    import alpaca.data.live
    import alpaca.trading.client
    import alpaca.trading.stream  # noqa: F401
