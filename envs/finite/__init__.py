"""Environments whose dynamics are a `FiniteMDP`: one class, `FiniteEnv`, and one function per problem."""
