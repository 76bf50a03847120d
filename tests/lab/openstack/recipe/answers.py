"""Whether a web server on loopback answers: answers.py PORT/PATH; prints the status, exits 0 below 500."""

import sys
import urllib.error
import urllib.request

try:
    code = urllib.request.urlopen(f"http://127.0.0.1:{sys.argv[1]}", timeout=20).status
except urllib.error.HTTPError as error:
    code = error.code
except OSError as error:
    sys.exit(str(error))
print(code)
sys.exit(code >= 500)
