"""Sources whose rows are computed by number: the contract, the draws of a row, and the kinds of the package."""
