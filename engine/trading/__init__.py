"""Pure trading, without backtrader: orders, costs, matching, ledger, sizing, risk. One copy for every venue.

The innermost functions take and return plain floats, so that they can be compiled.
"""
