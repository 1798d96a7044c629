"""Pages: what report.html of a run, an evaluation and a study share."""
