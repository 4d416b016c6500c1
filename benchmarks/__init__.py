"""Speed beside peers: the bar loop, forecasting and training. ``python -m benchmarks`` runs them all."""
