// The mathematics of the page: numbers in, numbers out, nothing of the page itself.
//
//   for every piece i of the focus unit:
//     s_ij  = q_i · k_j × scale ÷ temperature      (null where j is masked)
//     lse_i = ln Σ_j e^s_ij
//     p_ij  = e^(s_ij − lse_i)
//   weight[u]       = mean over i of Σ_{j in u} p_ij
//   score[u]        = s_ij itself where focus and u are one piece each, otherwise
//                     ln(weight[u]) + mean over i of lse_i
//   contribution[u] = mean over i of Σ_{j in u} p_ij · v_j
//   value[u]        = contribution[u] ÷ weight[u]
//   output          = Σ_u contribution[u]
//   influence[u]    = weight[u] × ‖value[u]‖
//
// A merged score is chosen so that the softmax of the scores shown gives exactly the weights
// shown: a learner can recompute the row from the page, whatever was merged.
// All of it in float64; a masked key or value is never read.

"use strict";

function dotProduct(a, b) {
  let sum = 0;
  for (let d = 0; d < a.length; d++) sum += a[d] * b[d];
  return sum;
}

function vectorLength(vector) {
  return Math.hypot(...vector);
}

function addScaled(target, factor, vector) {
  for (let d = 0; d < target.length; d++) target[d] += factor * vector[d];
}

/** ln Σ e^x over the numbers of `row`; null entries are masked. −∞ where nothing is visible. */
function logSumExp(row) {
  let max = -Infinity;
  for (const x of row) if (x !== null && x > max) max = x;
  if (max === -Infinity) return -Infinity;
  let sum = 0;
  for (const x of row) if (x !== null) sum += Math.exp(x - max);
  return max + Math.log(sum);
}

/** True where the raw scores of this focus unit were given and not computed. */
function scoresAreGiven(data, focus) {
  return data.given_scores?.focus === focus;
}

/** Step 2 for one query piece: { raw, scores }, one entry per piece, null where masked. */
function scorePieces(data, query, focus, temperature) {
  const given = scoresAreGiven(data, focus) ? data.given_scores.scores : null;
  const raw = [];
  const scores = [];
  for (let key = 0; key < data.k.length; key++) {
    const masked = given ? given[key] === null : data.causal && key > query;
    if (masked) {
      raw.push(null);
      scores.push(null);
    } else if (given) {
      raw.push(given[key]);
      scores.push(given[key] / temperature);
    } else {
      const match = dotProduct(data.q[query], data.k[key]);
      raw.push(match);
      scores.push((match * data.scale) / temperature);
    }
  }
  return { raw, scores, lse: logSumExp(scores) };
}

/** Steps 2 to 4 for one focus unit; every array has one entry per unit. */
function attendFrom(data, focus, temperature) {
  const queries = data.units[focus].pieces;
  const rows = queries.map((query) => scorePieces(data, query, focus, temperature));
  const meanLse = rows.reduce((sum, row) => sum + row.lse, 0) / Math.max(1, rows.length);
  const valueDim = data.v.length ? data.v[0].length : 0;

  const scores = [];
  const raw = []; // q·k where there is one such number, null where pieces were merged or masked
  const weights = [];
  const values = [];
  const contributions = [];
  const output = new Array(valueDim).fill(0);

  for (const unit of data.units) {
    let weight = 0;
    const contribution = new Array(valueDim).fill(0);
    const logShares = [];
    for (const { scores: row, lse } of rows) {
      for (const key of unit.pieces) {
        if (row[key] === null) continue;
        const share = Math.exp(row[key] - lse) / rows.length;
        weight += share;
        addScaled(contribution, share, data.v[key]);
        logShares.push(row[key] - lse);
      }
    }
    const masked = logShares.length === 0;
    const single = rows.length === 1 && unit.pieces.length === 1;
    if (masked) scores.push(null);
    else if (single) scores.push(rows[0].scores[unit.pieces[0]]);
    // ln(weight) through log-sum-exp: a weight that underflows to 0 keeps a finite score
    else scores.push(logSumExp(logShares) - Math.log(rows.length) + meanLse);
    raw.push(single && !masked ? rows[0].raw[unit.pieces[0]] : null);
    weights.push(weight);
    values.push(masked ? null : valueOf(data, unit, contribution, weight));
    contributions.push(contribution);
    addScaled(output, 1, contribution);
  }

  const visible = scores.filter((score) => score !== null);
  const max = visible.length ? Math.max(...visible) : -Infinity;
  const exponentials = scores.map((score) => (score === null ? null : Math.exp(score - max)));
  return {
    given: scoresAreGiven(data, focus),
    rows,
    raw,
    scores,
    max,
    exponentials,
    exponentialsSum: exponentials.reduce((sum, x) => sum + (x ?? 0), 0),
    weights,
    weightsSum: weights.reduce((sum, weight) => sum + weight, 0),
    values,
    contributions,
    output,
    influence: weights.map((weight, u) => (values[u] ? weight * vectorLength(values[u]) : 0)),
  };
}

/** What the unit's weight is multiplied with: its own vector, or the mean of its pieces' vectors
 *  as weighted by the row. With no weight at all, their plain mean. */
function valueOf(data, unit, contribution, weight) {
  if (unit.pieces.length === 1) return data.v[unit.pieces[0]];
  if (weight > 0) return contribution.map((x) => x / weight);
  const mean = new Array(contribution.length).fill(0);
  for (const key of unit.pieces) addScaled(mean, 1 / unit.pieces.length, data.v[key]);
  return mean;
}
