"""The engine: bars in, strategy, orders, fills, report out."""
