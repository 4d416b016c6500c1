"""Forecast models: features, windows, networks, training, bundles, and the indicator that puts them on a chart."""
