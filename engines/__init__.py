"""What answers: language models behind one contract. Imports records only."""
