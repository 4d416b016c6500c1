"""The backtest side: a preloading feed, line guards, our broker, and the bar loop."""
