"""Evaluation of policies: metrics, statistics, and the HTML report."""
