"""Strategies: rules, and plain backtrader strategies beside them."""
