"""How the experiments keep their work: configurations, units, trainings, results and verdicts."""
