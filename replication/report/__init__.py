"""Published numbers, our results, verdicts and their rendering."""
