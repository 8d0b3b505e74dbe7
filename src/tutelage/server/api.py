"""The chat over JSON, for the pages and for scripts. Cookie session; the owner is in every query.

    POST   /api/dialogues                    {text, idempotency_key?}                      201 started turn
    GET    /api/dialogues                    ?limit=50&before=ID                           {dialogues: [...]}
    GET    /api/dialogues/{id}               ?leaf_id=ID                                   {dialogue, messages: [...]}
    PATCH  /api/dialogues/{id}               {title}                                       {dialogue}
    DELETE /api/dialogues/{id}                                                             204
    POST   /api/dialogues/{id}/messages      {text, parent_id?, idempotency_key?}          201 started turn
    POST   /api/messages/{id}/regenerate                                                   201 started turn
    GET    /api/answers/{id}/events          ?after=N or Last-Event-ID                     text/event-stream
    POST   /api/answers/{id}/stop                                                          204
    PUT    /api/messages/{id}/rating         {verdict, reasons?, note?, ideal?}            {rating}
    DELETE /api/messages/{id}/rating                                                       204
    POST   /api/messages/{id}/report         {kind, category?, note?}                      201 {report}
    GET    /api/model                                                                      {serving, loading, failed}
    GET    /api/me                                                                         {user}

Accounts (server/accounts.py):

    POST   /api/sign-in                      {name, password}                              {user}
    POST   /api/sign-out                                                                   204
    POST   /api/operator-link                {token}                                       {user}
    PUT    /api/account                      {name, password, old_password?}               {user}

A started turn is {dialogue_id, user_message_id, answer_id, input_verdict}.

A message is {id, dialogue_id, parent_id, role, content, author_kind, status, finish_reason, model_version,
verdict, siblings: [ids], rating: {verdict, reasons, note, ideal} | null, created}. The content of a blocked answer
is empty. `parent_id` left out of a sent message means the newest leaf; null means a new first message.

Events are `id: SEQ`, `event: delta|verdict|done|error`, `data: JSON` as in server/turn.py; a comment comes every
15 s. Errors are {"error": {message, type, param, code}}.
"""
