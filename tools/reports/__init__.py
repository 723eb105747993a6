"""The report page of a run: its facts, its charts, its HTML."""
