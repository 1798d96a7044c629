"""How a judge asks and what it makes of the answers: rubrics, readers of answers, reasoning steps, and three modes."""
