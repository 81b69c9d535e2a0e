"""The model on the Hub: pushes, the model card, and what it cites."""

from .card_results import add_results_to_card


__all__ = ["add_results_to_card"]
