"""Bars of the user's own: CSV and Parquet files in any common layout."""
