"""What do shoppers do, and how good are the orders that they get? Figures made readable.

From logs and evaluations to one self-contained HTML file: findings are plain data, charts are
inline SVG, a page needs no network. Ranking never imports this room.
"""
