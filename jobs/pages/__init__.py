"""Pages: the frame, the style sheet and the figures that the pages of a run, an evaluation and a study share."""
