"""A tenant is data: its file becomes a typed, checked model, and every name of its things follows one grammar."""
