"""From finished units to results.json, tables of the paper against ours, verdicts and figures."""
