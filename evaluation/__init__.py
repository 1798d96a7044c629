"""What is measured: pure functions over tables."""
