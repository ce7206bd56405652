package example;

import com.amazonaws.services.lambda.runtime.Context;
import com.amazonaws.services.lambda.runtime.RequestHandler;
import java.util.Map;

public class Hello implements RequestHandler<Map<String, Object>, Map<String, String>> {
  @Override
  public Map<String, String> handleRequest(Map<String, Object> event, Context context) {
    if (event.get("fail") != null) throw new IllegalArgumentException("as asked");
    return Map.of(
        "hello", String.valueOf(event.get("name")),
        "arn", context.getInvokedFunctionArn(),
        "version", context.getFunctionVersion());
  }
}
