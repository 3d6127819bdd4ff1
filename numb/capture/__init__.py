"""What numb sees of a live model: its architecture, its weights, its numbers over time. torch is imported late."""
