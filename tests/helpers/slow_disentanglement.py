"""Scores of disentanglement computed one pair, vote and class at a time with scikit-learn: what the fast ones equal.

They follow the papers' formulas. Scores that are learned take `Parts`, the data to learn from and to test.
"""

import numpy as np
from scipy.stats import entropy, spearmanr
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.feature_selection import mutual_info_classif
from sklearn.linear_model import Lasso, LogisticRegression
from sklearn.metrics import log_loss, mutual_info_score, roc_auc_score
from sklearn.svm import LinearSVC


def bins_of(z, bins=20):
    edges = [np.linspace(x.min(), x.max(), bins + 1)[1:-1] for x in z.T]
    return np.stack([np.digitize(x, e) for x, e in zip(z.T, edges, strict=True)], 1)


def information(z, v):
    binned = bins_of(z)
    return np.array([[mutual_info_score(b, y) for y in v.T] for b in binned.T])


def top_gap(matrix):
    ordered = np.sort(matrix, 0)
    return (ordered[-1] - ordered[-2]).mean()


def mig(z, v):
    return top_gap(information(z, v) / [mutual_info_score(y, y) for y in v.T])


def modularity(z, v):
    found = []
    for row in information(z, v):
        ideal = np.where(np.arange(len(row)) == row.argmax(), row.max(), 0)
        found.append(1 - ((row - ideal) ** 2).sum() / (row.max() ** 2 * (len(row) - 1)))
    return np.mean(found)


def disentanglement(matrix):
    each = 1 - entropy(matrix.T + 1e-11, base=matrix.shape[1])
    return (each * matrix.sum(1)).sum() / matrix.sum()


def completeness(matrix):
    each = 1 - entropy(matrix + 1e-11, base=matrix.shape[0])
    return (each * matrix.sum(0)).sum() / matrix.sum()


def med(z, v):
    found = information(z, v)
    return disentanglement(found / found.sum(0))


def sap_regression(z, v):
    return top_gap(np.array([[np.corrcoef(x, y)[0, 1] ** 2 for y in v.T] for x in z.T]))


def sap_classifier(data, tolerance=1e-4):
    right = np.zeros((data.z.shape[1], data.v.shape[1]))
    for j in range(data.z.shape[1]):
        for k in range(data.v.shape[1]):
            machine = LinearSVC(C=0.01, class_weight="balanced", dual=False, tol=tolerance, max_iter=10_000)
            machine.fit(data.z[:, j : j + 1], data.v[:, k])
            right[j, k] = (machine.predict(data.z_test[:, j : j + 1]) == data.v_test[:, k]).mean()
    return top_gap(right)


def explicitness(data):
    found = []
    for y, y_test in zip(data.v.T, data.v_test.T, strict=True):
        p = LogisticRegression().fit(data.z, y).predict_proba(data.z_test)
        found.append(np.mean([roc_auc_score(y_test == c, p[:, c]) for c in range(p.shape[1])]))
    return np.mean(found)


def info_e(data):
    found = []
    for y, y_test in zip(data.v.T, data.v_test.T, strict=True):
        classes = range(int(y.max()) + 1)
        losses = []
        for z, z_test in ((data.z, data.z_test), (0 * data.z, 0 * data.z_test)):
            learned = LogisticRegression(C=np.inf, class_weight="balanced").fit(z, y)
            losses.append(log_loss(y_test, learned.predict_proba(z_test), labels=classes))
        found.append(1 - losses[0] / losses[1])
    return np.mean(found)


def info_matrix(z, v, seed=0):
    found = [mutual_info_classif(z, y, n_neighbors=10, random_state=seed) / mutual_info_score(y, y) for y in v.T]
    return np.stack(found, 1)


def info_m(matrix):
    count = matrix.shape[1]
    return np.mean([(row.max() / row.sum() - 1 / count) / (1 - 1 / count) for row in matrix])


def info_c(matrix):
    return info_m(matrix.T)


def dci(data, seed=0):
    """Disentanglement, completeness and informativeness by boosted trees."""
    importance, right = [], []
    for y, y_test in zip(data.v.T, data.v_test.T, strict=True):
        learned = GradientBoostingClassifier(random_state=seed).fit(data.z, y)
        importance.append(learned.feature_importances_)
        right.append(learned.score(data.z_test, y_test))
    matrix = np.stack(importance, 1)
    return disentanglement(matrix), completeness(matrix), np.mean(right)


def dci_lasso(data, penalty=0.02):
    importance, explained = [], []
    for y, y_test in zip(data.v.T, data.v_test.T, strict=True):
        learned = Lasso(penalty).fit(data.z, (y - y.mean()) / y.std())
        importance.append(np.abs(learned.coef_))
        explained.append(learned.score(data.z_test, (y_test - y.mean()) / y.std()))
    matrix = np.stack(importance, 1)
    return disentanglement(matrix), np.mean(1 - entropy(matrix + 1e-11, base=len(matrix))), np.mean(explained)


def factor_score(z, v, votes, tests, size, seed=0):
    rng = np.random.default_rng(seed)
    spread = z.std(0)

    def vote():
        k = rng.integers(v.shape[1])
        value = rng.choice(np.unique(v[:, k]))
        rows = rng.choice(np.flatnonzero(v[:, k] == value), size)
        return (z[rows] / spread).var(0).argmin(), k

    table = np.zeros((z.shape[1], v.shape[1]))
    for _ in range(votes):
        table[vote()] += 1
    named = table.argmax(1)
    return np.mean([named[j] == k for j, k in (vote() for _ in range(tests))])


def beta_score(z, v, votes, tests, size, seed=0):
    rng = np.random.default_rng(seed)

    def example():
        k = rng.integers(v.shape[1])
        one = rng.integers(len(z), size=size)
        other = [rng.choice(np.flatnonzero((v[:, k] == v[row, k]) & (np.arange(len(v)) != row))) for row in one]
        return np.abs(z[one] - z[other]).mean(0), k

    features, held = zip(*(example() for _ in range(votes + tests)), strict=True)
    features, held = np.array(features), np.array(held)
    learned = LogisticRegression().fit(features[:votes], held[:votes])
    return (learned.predict(features[votes:]) == held[votes:]).mean()


def udr(codes, similarity):
    """The score of each model, all latents in use."""
    pairs = np.full((len(codes), len(codes)), np.nan)
    for i, a in enumerate(codes):
        for j, b in enumerate(codes):
            if i == j:
                continue
            r = np.zeros((a.shape[1], b.shape[1]))
            one, other = ((z - z.mean(0)) / z.std(0) for z in (a, b))
            for q in range(b.shape[1]):
                if similarity == "lasso":
                    r[:, q] = np.abs(Lasso(0.1).fit(one, other[:, q]).coef_)
                else:
                    r[:, q] = [abs(spearmanr(one[:, p], other[:, q])[0]) for p in range(a.shape[1])]
            strengths = [row.max() ** 2 / row.sum() for row in r] + [column.max() ** 2 / column.sum() for column in r.T]
            pairs[i, j] = np.mean(strengths)
    return np.nanmedian(pairs, 0)
