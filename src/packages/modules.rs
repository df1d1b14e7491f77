//! Which distribution brings a module, where their names differ or where programs often want it.

/// The names of modules, each with the distribution that brings it. A name that is not here may be
/// anything: a guess from it may be a package that somebody made for those who guess.
const KNOWN: [(&str, &str); 84] = [
    ("Bio", "biopython"),
    ("Crypto", "pycryptodome"),
    ("Levenshtein", "levenshtein"),
    ("OpenSSL", "pyopenssl"),
    ("PIL", "pillow"),
    ("PyPDF2", "pypdf2"),
    ("aiohttp", "aiohttp"),
    ("altair", "altair"),
    ("arrow", "arrow"),
    ("attr", "attrs"),
    ("attrs", "attrs"),
    ("bokeh", "bokeh"),
    ("boto3", "boto3"),
    ("bs4", "beautifulsoup4"),
    ("chardet", "chardet"),
    ("click", "click"),
    ("cryptography", "cryptography"),
    ("cv2", "opencv-python-headless"),
    ("cvxpy", "cvxpy"),
    ("dateutil", "python-dateutil"),
    ("django", "django"),
    ("docx", "python-docx"),
    ("dotenv", "python-dotenv"),
    ("duckdb", "duckdb"),
    ("faker", "faker"),
    ("fastapi", "fastapi"),
    ("fitz", "pymupdf"),
    ("flask", "flask"),
    ("git", "gitpython"),
    ("httpx", "httpx"),
    ("igraph", "igraph"),
    ("imblearn", "imbalanced-learn"),
    ("jinja2", "jinja2"),
    ("joblib", "joblib"),
    ("jsonschema", "jsonschema"),
    ("jwt", "pyjwt"),
    ("lightgbm", "lightgbm"),
    ("lxml", "lxml"),
    ("markdown", "markdown"),
    ("matplotlib", "matplotlib"),
    ("mpl_toolkits", "matplotlib"),
    ("mpmath", "mpmath"),
    ("networkx", "networkx"),
    ("nltk", "nltk"),
    ("numba", "numba"),
    ("numpy", "numpy"),
    ("openpyxl", "openpyxl"),
    ("pandas", "pandas"),
    ("pdfplumber", "pdfplumber"),
    ("pkg_resources", "setuptools"),
    ("plotly", "plotly"),
    ("polars", "polars"),
    ("pptx", "python-pptx"),
    ("psutil", "psutil"),
    ("pyarrow", "pyarrow"),
    ("pydantic", "pydantic"),
    ("pygments", "pygments"),
    ("pylab", "matplotlib"),
    ("pypdf", "pypdf"),
    ("pytest", "pytest"),
    ("pytz", "pytz"),
    ("regex", "regex"),
    ("reportlab", "reportlab"),
    ("requests", "requests"),
    ("rich", "rich"),
    ("scipy", "scipy"),
    ("seaborn", "seaborn"),
    ("serial", "pyserial"),
    ("shapely", "shapely"),
    ("simplejson", "simplejson"),
    ("skimage", "scikit-image"),
    ("sklearn", "scikit-learn"),
    ("sqlalchemy", "sqlalchemy"),
    ("statsmodels", "statsmodels"),
    ("sympy", "sympy"),
    ("tabulate", "tabulate"),
    ("tiktoken", "tiktoken"),
    ("torch", "torch"),
    ("tqdm", "tqdm"),
    ("xgboost", "xgboost"),
    ("xlrd", "xlrd"),
    ("xlsxwriter", "xlsxwriter"),
    ("yaml", "pyyaml"),
    ("zmq", "pyzmq"),
];

/// Returns the distribution that brings a module, if it is known.
pub fn distribution(module: &str) -> Option<&'static str> {
    let top = module.split('.').next()?;
    let found = KNOWN
        .binary_search_by_key(&top, |(module, _)| module)
        .ok()?;
    Some(KNOWN[found].1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packages::requirement::{check, normalized};

    #[test]
    fn a_module_leads_to_its_distribution_and_a_guess_to_none() {
        assert_eq!(distribution("cv2"), Some("opencv-python-headless"));
        assert_eq!(distribution("PIL.Image"), Some("pillow"));
        assert_eq!(distribution("numpy.linalg"), Some("numpy"));
        for unknown in ["", ".", "helper", "opencv", "Numpy", "numpyx"] {
            assert_eq!(distribution(unknown), None, "{unknown}");
        }
    }

    #[test]
    fn the_table_is_in_order_and_names_distributions_as_they_are_compared() {
        assert!(KNOWN.is_sorted_by(|one, next| one.0 < next.0));
        for (_, distribution) in KNOWN {
            assert_eq!(check(distribution), Ok(()));
            assert_eq!(normalized(distribution), distribution);
        }
    }
}
