"""Where objects lie: a local folder or S3, behind one contract."""
