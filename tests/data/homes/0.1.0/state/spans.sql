BEGIN TRANSACTION;
CREATE TABLE requests (
    id INTEGER PRIMARY KEY AUTOINCREMENT, trace_id TEXT NOT NULL, request_id TEXT NOT NULL, model TEXT,
    start_unix_ns INTEGER NOT NULL, duration_s REAL, status INTEGER NOT NULL, error TEXT
);
INSERT INTO "requests" VALUES(1,'4bf92f3577b34da6a3ce929d0e0e4736','req_1','tiny',1790000000000000000,0.5,200,NULL);
CREATE TABLE spans (
    trace_id TEXT NOT NULL, span_id TEXT NOT NULL, parent_id TEXT, name TEXT NOT NULL,
    start_unix_ns INTEGER NOT NULL, end_unix_ns INTEGER NOT NULL, error TEXT, attributes BLOB NOT NULL
);
INSERT INTO "spans" VALUES('4bf92f3577b34da6a3ce929d0e0e4736','00f067aa0ba902b7',NULL,'POST /v1/chat/completions',1790000000000000000,1790000000500000000,NULL,X'7B22687474702E726573706F6E73652E7374617475735F636F6465223A3230307D');
CREATE INDEX spans_by_trace ON spans (trace_id);
CREATE INDEX spans_by_start ON spans (start_unix_ns);
CREATE INDEX requests_by_start ON requests (start_unix_ns);
CREATE INDEX requests_by_request ON requests (request_id);
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('requests',1);
COMMIT;
