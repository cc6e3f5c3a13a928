"""What containers really use of their GPUs: measured, told, and, where asked for, acted upon."""
