"""The models of policies/*.yaml and what follows from them alone. TRUSTED, fails closed."""
