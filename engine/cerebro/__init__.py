"""backtrader in our hands, the same for historical bars and live ones: guarded lines, the bar loop, the broker."""
