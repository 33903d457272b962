"""Fits the polynomials of src/noise/math.rs and prints them as Rust constants.

Weighted least squares on Chebyshev nodes (close to minimax); each coefficient in turn, lowest power first, is
rounded to f32 and the others are fitted again. Needs numpy and mpmath: python3 tests/data/noise_fit_polynomials.py
"""
import mpmath
import numpy

mpmath.mp.dps = 40


def fit(name, target, weight, low, high, degree, points=400):
    """target(x) ~ sum of c[i] x^i on [low, high], with the error multiplied by weight(x)."""
    nodes = [
        (low + high) / 2 + (high - low) / 2 * mpmath.cos(mpmath.pi * (2 * k + 1) / (2 * points))
        for k in range(points)
    ]
    nodes = [x for x in nodes if abs(x) > mpmath.mpf(10) ** -9]
    weights = numpy.array([float(weight(x)) for x in nodes])
    rest = [target(x) for x in nodes]
    coefficients = []
    for power in range(degree + 1):
        columns = numpy.array([[float(x) ** i for i in range(power, degree + 1)] for x in nodes])
        wanted = numpy.array([float(value) for value in rest])
        solution, *_ = numpy.linalg.lstsq(columns * weights[:, None], wanted * weights, rcond=None)
        coefficient = numpy.float32(solution[0])
        coefficients.append(coefficient)
        rest = [value - mpmath.mpf(float(coefficient)) * x**power for value, x in zip(rest, nodes)]
    error = max(abs(float(value) * w) for value, w in zip(rest, weights))
    print(f"/// Largest relative error {error:.1e} on [{float(low):.4f}, {float(high):.4f}].")
    listed = ", ".join(f"{numpy.format_float_scientific(c, unique=True)}" for c in coefficients)
    print(f"const {name}: [f32; {degree + 1}] = [{listed}];")


half_ln2 = mpmath.log(2) / 2
fit("EXP", lambda r: (mpmath.exp(r) - 1 - r) / r**2, lambda r: r**2 / mpmath.exp(r), -half_ln2, half_ln2, 4)
fit(
    "LOG",
    lambda f: (mpmath.log(1 + f) - f + f**2 / 2) / f**3,
    lambda f: f**3 / mpmath.log(1 + f),
    mpmath.sqrt(0.5) - 1,
    mpmath.sqrt(2) - 1,
    7,
)
# The angle is (pi/2) s; the variable is s squared.
half_pi = mpmath.mpf(float(numpy.float32(mpmath.pi / 2)))
fit(
    "SIN",
    lambda q: mpmath.sin(mpmath.pi / 2 * mpmath.sqrt(q)) / mpmath.sqrt(q) - half_pi,
    lambda q: mpmath.sqrt(q) / mpmath.sin(mpmath.pi / 2 * mpmath.sqrt(q)),
    mpmath.mpf(0),
    mpmath.mpf(1) / 4,
    3,
)
fit(
    "COS",
    lambda q: (mpmath.cos(mpmath.pi / 2 * mpmath.sqrt(q)) - 1) / q,
    lambda q: q / mpmath.cos(mpmath.pi / 2 * mpmath.sqrt(q)),
    mpmath.mpf(0),
    mpmath.mpf(1) / 4,
    3,
)
