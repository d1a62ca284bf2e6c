-- wrk's request: MODEL, KEY and STREAM from the environment.
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.headers["Authorization"] = "Bearer " .. os.getenv("KEY")
wrk.body = string.format(
  '{"model":"%s","stream":%s,"messages":[{"role":"user","content":"What is the capital of France?"}]}',
  os.getenv("MODEL"), os.getenv("STREAM"))
