"""The steering experiment (Figure 3): checks S0 to S12, controls, planted truth, the authors' rewards, tables and figure.

May import: agreement, cells, published.
"""
