"""Ours beside others, in one process, by turns: `make bench` measures and writes results/bench/."""
