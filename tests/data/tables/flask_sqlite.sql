-- As SQLAlchemy 2.1.9 (create_all) emits them.
CREATE TABLE user (
  id INTEGER NOT NULL, 
  username VARCHAR(50) NOT NULL, 
  password_hash VARCHAR(255) NOT NULL, 
  role VARCHAR(20) NOT NULL, 
  PRIMARY KEY (id), 
  UNIQUE (username)
);

CREATE TABLE token (
  id INTEGER NOT NULL, 
  token VARCHAR(512) NOT NULL, 
  expires_at DATETIME NOT NULL, 
  user_id INTEGER NOT NULL, 
  PRIMARY KEY (id), 
  UNIQUE (token), 
  FOREIGN KEY(user_id) REFERENCES user (id)
);
