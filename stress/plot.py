"""Charts as SVG, from numbers alone: no library, the same bytes for the same numbers."""

from html import escape

WIDTH, ROW, LEFT, RIGHT, TOP = 720, 26, 190, 90, 44
LINE_HEIGHT = 240
COLORS = ("#2563eb", "#9ca3af", "#d97706", "#059669", "#7c3aed", "#dc2626")


def _head(height, title):
    return [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" font-family="sans-serif" font-size="13">',
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>',
        f'<text x="12" y="24" font-size="16" font-weight="bold">{escape(title)}</text>',
    ]


def bars(title, rows, unit):
    """Horizontal bars: `rows` are names and numbers, the first one in a color of its own."""
    most = max((value for _, value in rows), default=0) or 1
    lines = _head(TOP + ROW * len(rows) + 12, title)
    for number, (name, value) in enumerate(rows):
        y = TOP + ROW * number
        width = value / most * (WIDTH - LEFT - RIGHT)
        color = COLORS[min(number, 1)]
        lines.append(f'<text x="{LEFT - 8}" y="{y + 15}" text-anchor="end">{escape(name)}</text>')
        lines.append(f'<rect x="{LEFT}" y="{y + 2}" width="{width:.1f}" height="{ROW - 8}" fill="{color}"/>')
        lines.append(f'<text x="{LEFT + width + 6:.1f}" y="{y + 15}">{value:,.3g} {escape(unit)}</text>')
    return "\n".join([*lines, "</svg>", ""])


def lines(title, series, x_name, unit):
    """Lines from the origin: `series` are names and lists of points."""
    points = [point for _, each in series for point in each] or [(1, 1)]
    most_x, most_y = max(x for x, _ in points) or 1, max(y for _, y in points) or 1
    bottom, right = TOP + LINE_HEIGHT, WIDTH - RIGHT
    left = 70
    out = _head(bottom + 44, title)
    for share in (0, 0.25, 0.5, 0.75, 1):
        y = bottom - share * LINE_HEIGHT
        out.append(f'<line x1="{left}" y1="{y:.1f}" x2="{right}" y2="{y:.1f}" stroke="#e5e7eb"/>')
        out.append(f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{share * most_y:,.3g}</text>')
    out.append(f'<text x="{left}" y="{bottom + 32}">{escape(unit)} over {escape(x_name)}, up to {most_x:,}</text>')
    for number, (name, each) in enumerate(series):
        color = COLORS[number % len(COLORS)]
        path = " ".join(
            f"{left + x / most_x * (right - left):.1f},{bottom - y / most_y * LINE_HEIGHT:.1f}" for x, y in each
        )
        out.append(f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="1.5"/>')
        out.append(f'<text x="{right + 6}" y="{TOP + 12 + 18 * number}" fill="{color}">{escape(name)}</text>')
    return "\n".join([*out, "</svg>", ""])
