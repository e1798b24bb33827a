"""What a report says of where its numbers come from: conditions, deviations, inputs, stamps, and no private path.

May import: cells.
"""
