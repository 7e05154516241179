"""What do shoppers do, and how good are the orders that they get? Figures made readable.

Turns logs and evaluations into one self-contained HTML file: findings are plain data, charts are
inline SVG, and a page needs no network. Ranking never imports this room.
"""
