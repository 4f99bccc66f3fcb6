"""Trainer and evaluator rooms: everything the trainer image holds."""
