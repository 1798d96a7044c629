"""What is done to rows: each stage adds columns (findings) and may reject; none makes, drops or moves a row."""
