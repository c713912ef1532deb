"""What it costs: side by side with other projects in one run. `python -m benchmarks.NAME`; results lie in results/."""
