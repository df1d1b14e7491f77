"""Numbers that no two clones may have in common, of generators that modules made when they were imported, above all."""

import aiohttp.http_websocket
import aiohttp.multipart
import joblib
import numpy as np
import numpy.random
import sklearn.linear_model
import sympy
import sympy.core.random

import json, multiprocessing, os, random, secrets, ssl, tempfile, uuid

print(json.dumps({
    'random': random.getrandbits(64),
    'random.Random()': random.Random().getrandbits(64),
    'numpy.random.random_sample': np.random.random_sample(),
    'numpy.random.mtrand': float(np.random.mtrand._rand.random_sample()),
    'RandomState()': int(np.random.RandomState().randint(2**62)),
    'default_rng()': int(np.random.default_rng().integers(2**62)),
    'sympy.core.random': sympy.core.random.rng.getrandbits(64),
    'sympy: Dummy': int(sympy.Dummy('x').dummy_index),
    'sympy: its generator': sympy.Dummy._prng.getrandbits(64),
    'joblib: names': next(joblib._multiprocessing_helpers._rand),
    'multiprocessing': bytes(multiprocessing.current_process().authkey).hex(),
    'uuid1': str(uuid.uuid1()),
    'uuid4': str(uuid.uuid4()),
    'ssl': ssl.RAND_bytes(16).hex(),
    'secrets': secrets.token_hex(16),
    'tempfile': next(tempfile._get_candidate_names()),
    'urandom': os.urandom(16).hex(),
}))
