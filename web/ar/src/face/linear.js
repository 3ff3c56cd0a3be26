/** Small linear algebra; matrices are flat and row by row. */

/**
 * Solve a system by elimination with pivots.
 *
 * @param {ArrayLike<number>} matrix (n, n)
 * @param {ArrayLike<number>} right (n,)
 * @param {number} n
 * @returns {Float64Array} (n,); not finite where the matrix has no inverse.
 */
export function solve(matrix, right, n) {
  const a = Float64Array.from(matrix), b = Float64Array.from(right);
  for (let column = 0; column < n; column++) {
    let pivot = column;
    for (let row = column + 1; row < n; row++) {
      if (Math.abs(a[row * n + column]) > Math.abs(a[pivot * n + column])) pivot = row;
    }
    if (pivot !== column) {
      for (let k = 0; k < n; k++) {
        [a[column * n + k], a[pivot * n + k]] = [a[pivot * n + k], a[column * n + k]];
      }
      [b[column], b[pivot]] = [b[pivot], b[column]];
    }
    for (let row = column + 1; row < n; row++) {
      const factor = a[row * n + column] / a[column * n + column];
      for (let k = column; k < n; k++) a[row * n + k] -= factor * a[column * n + k];
      b[row] -= factor * b[column];
    }
  }
  for (let row = n - 1; row >= 0; row--) {
    for (let k = row + 1; k < n; k++) b[row] -= a[row * n + k] * b[k];
    b[row] /= a[row * n + row];
  }
  return b;
}

/**
 * @param {ArrayLike<number>} m (3, 3) or more, of which the first nine count.
 * @returns {{ inverse: Float64Array, determinant: number }} Zeros where there is no inverse.
 */
export function invert(m) {
  const [a, b, c, d, e, f, g, h, i] = [m[0], m[1], m[2], m[3], m[4], m[5], m[6], m[7], m[8]];
  const first = e * i - f * h, second = f * g - d * i, third = d * h - e * g;
  const determinant = a * first + b * second + c * third;
  if (!(Math.abs(determinant) > 0)) return { inverse: new Float64Array(9), determinant: 0 };
  const inverse = Float64Array.of(
    first, c * h - b * i, b * f - c * e,
    second, a * i - c * g, c * d - a * f,
    third, b * g - a * h, a * e - b * d,
  ).map((value) => value / determinant);
  return { inverse, determinant };
}

/** @param {ArrayLike<number>} a @param {ArrayLike<number>} b @returns {Float64Array} (3, 3) */
export function multiply(a, b) {
  const out = new Float64Array(9);
  for (let i = 0; i < 3; i++) {
    for (let j = 0; j < 3; j++) {
      out[3 * i + j] = a[3 * i] * b[j] + a[3 * i + 1] * b[3 + j] + a[3 * i + 2] * b[6 + j];
    }
  }
  return out;
}

/** @param {ArrayLike<number>} m (3, 3) @param {ArrayLike<number>} v @returns {number[]} */
export function apply(m, v) {
  return [0, 3, 6].map((row) => m[row] * v[0] + m[row + 1] * v[1] + m[row + 2] * v[2]);
}

/** @param {ArrayLike<number>} m (3, 3) @param {ArrayLike<number>} v @returns {number[]} */
export function applyTransposed(m, v) {
  return [0, 1, 2].map((column) => m[column] * v[0] + m[3 + column] * v[1] + m[6 + column] * v[2]);
}

/**
 * @param {number} x @param {number} y @param {number} z Radians.
 * @returns {Float64Array} (3, 3), the rotation by a vector (Rodrigues' formula).
 */
export function rotation(x, y, z) {
  const angle = Math.hypot(x, y, z);
  const sine = angle < 1e-12 ? 1 : Math.sin(angle) / angle;
  const cosine = angle < 1e-12 ? 0.5 : (1 - Math.cos(angle)) / (angle * angle);
  const xx = x * x * cosine, yy = y * y * cosine, zz = z * z * cosine;
  const xy = x * y * cosine, xz = x * z * cosine, yz = y * z * cosine;
  const sx = x * sine, sy = y * sine, sz = z * sine;
  return Float64Array.of(
    1 - yy - zz, xy - sz, xz + sy,
    xy + sz, 1 - xx - zz, yz - sx,
    xz - sy, yz + sx, 1 - xx - yy,
  );
}

/**
 * The rotation that brings points nearest to others, by B. Horn's quaternions (1987): never a
 * mirror image.
 *
 * @param {ArrayLike<number>} m (3, 3), the sum of target times point transposed.
 * @returns {Float64Array} (3, 3)
 */
export function nearestRotation(m) {
  const [xx, yx, zx] = [m[0], m[1], m[2]];
  const [xy, yy, zy] = [m[3], m[4], m[5]];
  const [xz, yz, zz] = [m[6], m[7], m[8]];
  // Rows of m are the target's axes; sxy is the sum of point's x times target's y.
  const n = [
    [xx + yy + zz, yz - zy, zx - xz, xy - yx],
    [yz - zy, xx - yy - zz, xy + yx, zx + xz],
    [zx - xz, xy + yx, yy - xx - zz, yz + zy],
    [xy - yx, zx + xz, yz + zy, zz - xx - yy],
  ];
  const [w, x, y, z] = largestEigenvector(n);
  return Float64Array.of(
    1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
    2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
    2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
  );
}

/** @param {number[][]} given Symmetric. @returns {number[]} Unit, by Jacobi's rotations. */
function largestEigenvector(given) {
  const n = given.length;
  const a = given.map((row) => [...row]);
  const v = a.map((_, i) => a.map((_, j) => Number(i === j)));
  for (let sweep = 0; sweep < 24; sweep++) {
    let off = 0;
    for (let p = 0; p < n; p++) {
      for (let q = p + 1; q < n; q++) {
        off += a[p][q] * a[p][q];
        if (Math.abs(a[p][q]) < 1e-300) continue;
        const theta = (a[q][q] - a[p][p]) / (2 * a[p][q]);
        const t = Math.sign(theta || 1) / (Math.abs(theta) + Math.sqrt(theta * theta + 1));
        const c = 1 / Math.sqrt(t * t + 1), s = t * c;
        for (let k = 0; k < n; k++) {
          [a[k][p], a[k][q]] = [c * a[k][p] - s * a[k][q], s * a[k][p] + c * a[k][q]];
        }
        for (let k = 0; k < n; k++) {
          [a[p][k], a[q][k]] = [c * a[p][k] - s * a[q][k], s * a[p][k] + c * a[q][k]];
          [v[k][p], v[k][q]] = [c * v[k][p] - s * v[k][q], s * v[k][p] + c * v[k][q]];
        }
      }
    }
    if (off < 1e-26) break;
  }
  let best = 0;
  for (let i = 1; i < n; i++) if (a[i][i] > a[best][best]) best = i;
  return v.map((row) => row[best]);
}
