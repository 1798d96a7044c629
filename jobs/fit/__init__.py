"""gristmill fit: trains a model on rows; gristmill audit-privacy tests the privacy that the model claims."""
